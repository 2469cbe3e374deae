"""Complete verification: split where a bound is too loose, until every part is proved or holds a counterexample."""
