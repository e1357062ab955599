"""Who works on a unit: leases, in a folder or in a bucket."""
