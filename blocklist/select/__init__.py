"""What an export blocks: policy, folding of names, algebra of networks."""
