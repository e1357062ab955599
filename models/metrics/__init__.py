"""What a network is measured by, and the page that shows it."""
