"""lightasr: which encoder gives the best word error rate for what it costs?"""
