"""What is wrong with files, or likely a mistake: findings about nets and solver files."""
