"""What makes a local method safe from afar: radii, ratios, step lengths."""
