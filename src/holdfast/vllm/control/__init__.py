"""The routes under `/holdfast/v1`, and their channel to the engine cores."""
