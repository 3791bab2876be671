"""The discover tab."""
