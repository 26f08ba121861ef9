"""`kama monitor` on a terminal: screens that draw what `kama.monitor` knows. The only rooms that know Textual."""
