"""What calls tell of themselves, stored once; what it cost; how long it is kept."""
