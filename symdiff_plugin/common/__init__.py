"""What every room uses: files that are whole or absent, progress, one-line complaints, kinds of values, weights."""
