"""A process that uses all the CPU it can get, at normal priority, until it is ended.

python -m bench.hog
"""

if __name__ == "__main__":
    while True:
        pass
