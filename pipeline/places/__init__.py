"""Where outputs and records lie: folders of this machine, and prefixes of object stores."""
