"""Local heads: small classifiers that give the blocks of a network their own losses."""
