"""What is made from the charts, and what is checked about them."""
