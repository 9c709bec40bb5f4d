"""What is not committed yet, on local disk: written there first, and found again after a crash."""
