"""The process that workers on this machine are forked from, and what it has ready for them."""
