"""Reports: pages for people to look at, each one file that needs no other, no network and no script."""
