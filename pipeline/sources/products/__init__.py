"""Products as they were downloaded: SAFE and EOPF, in folders, zips and behind web servers, as items of a fetch."""
