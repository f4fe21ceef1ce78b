"""How the database came to be as it is: one file for each change, up and down."""
