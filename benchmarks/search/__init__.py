"""Does our search find more than others, at equal trials and at equal time?"""
