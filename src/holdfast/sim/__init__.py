"""The simulator: sessions on a virtual clock, and what their engine steps would cost."""
