"""JWTs of an OpenID Connect issuer: its keys, what its tokens say, and how both stay current."""
