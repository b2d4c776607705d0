"""One endpoint for several engines: sessions go where their KV blocks are."""
