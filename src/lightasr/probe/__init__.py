"""What each layer of a frozen encoder knows: linear probes, and statistics without labels."""
