"""What people learn with: figures and players, exercises and their checkers."""
