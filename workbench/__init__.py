"""persona workbench"""
