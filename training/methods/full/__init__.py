"""Full fine-tuning: every weight of the model is trained; the result is a whole checkpoint."""
