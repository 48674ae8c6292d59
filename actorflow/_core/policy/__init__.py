"""What to do: pure decisions on slotted state. Time and chance are arguments; nothing here waits, sends or reads a clock."""
