"""The course kit: assignments made, handed out, collected and graded from one source (all chapters)."""
