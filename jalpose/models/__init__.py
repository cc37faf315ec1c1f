"""Networks and heads as Linen modules, and their options."""
