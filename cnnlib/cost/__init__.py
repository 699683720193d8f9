"""What a model costs: parameters, multiply-adds and memory, without computing with it."""
