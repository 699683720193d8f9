"""What a network does, to be looked at: its arithmetic, its filters and maps, where it looks, how gradients flow."""
