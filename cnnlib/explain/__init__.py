"""Explanations of a CNN: its arithmetic, its filters and feature maps, Grad-CAM, and the flow of its gradients."""
