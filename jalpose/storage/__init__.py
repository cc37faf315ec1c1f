"""What a run writes and reads back: records, arrays and the journal of its passes."""
