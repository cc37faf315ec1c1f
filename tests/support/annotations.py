"""How annotations are checked while the tests run."""

from beartype import BeartypeConf, beartype

# As type checkers read them: a whole number is a float too.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
