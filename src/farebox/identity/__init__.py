"""Who is calling: by Farebox's own keys, and managers by theirs."""
