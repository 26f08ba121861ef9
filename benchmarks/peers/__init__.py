"""The servers that kama is measured beside: what each needs is installed here, once, and nowhere else."""
