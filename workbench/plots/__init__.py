"""SVG pictures and the palette, without a plotting library."""
