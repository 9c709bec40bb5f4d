"""What stands under the names of a container, and how long that is believed."""
