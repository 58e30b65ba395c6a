"""`make bench-blog`: how fast the blog is on this machine. `python -m blog_site.bench --help`."""
