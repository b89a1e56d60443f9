"""SVG pictures and their colours, made without a plotting library."""
