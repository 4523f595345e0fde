"""The dashboard's widgets: one file each. They paint what they are given; what is known lives on the board."""
