"""What a registered model makes of a split, and a challenger beside the champion."""
