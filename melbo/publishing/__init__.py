"""What is published: model card, Hub, Space."""
