"""Are our models smaller and faster on their targets than what a user would pick instead?"""
