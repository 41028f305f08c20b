"""Real resolvers, firewalls and proxies on loopback, for the tests marked `engine`."""
