"""KV blocks copied and read ahead of the requests that need them."""
