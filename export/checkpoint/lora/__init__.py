"""LoRA adapters as peft saves them: read, checked, and merged into a checkpoint's weights while these are read."""
