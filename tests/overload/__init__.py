"""More mail than can be delivered, for as long as one likes, and how the daemon answers meanwhile."""
