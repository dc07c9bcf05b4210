"""What training and serving cost: time, memory, energy."""
