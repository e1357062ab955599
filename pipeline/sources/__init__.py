"""Where pixels come from: what was asked for, what a catalogue offers, what its files hold."""
