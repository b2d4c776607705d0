"""Published policies, each as its paper states it, one a file."""
